"""``python -m actorlib.cli``, where the entry point is not on the path."""

from actorlib.cli import main

main()
