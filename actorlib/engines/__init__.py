"""What ``init(engine=...)`` can choose from. The seam itself is ``actorlib.engine``; see ``registry`` for the list."""
