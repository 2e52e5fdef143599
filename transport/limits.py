"""Every limit of the system, with its unit last in the name. Nothing here grows without a bound elsewhere.

Add a limit here rather than a number in the code that needs it.
"""

from __future__ import annotations

# -- wire --------------------------------------------------------------------------------------------------------------
frame_bytes_max = 1 << 30
"""Largest single frame that a socket accepts (MAXMSGSIZE)."""
frame_bytes_copied_max = 1 << 20
"""Frames of this size and above are handed to their reader in place."""
frames_per_batch_max = 4096
batch_body_bytes_max = 64 << 20
batch_messages_max = 65_536
elements_per_array_max = 1 << 22
"""Items of one array or map in a batch: each costs eight bytes before anybody has looked at it. (msgpack itself refuses
what is nested more than 1024 deep.)
"""
message_bytes_max = 8 << 20
"""Of calls or results that one message takes; more of them go in several. Arguments that don't fit are asked for."""
function_bytes_max = 32 << 20
"""A pickled function or class: what is larger has captured data."""
own_frame_bytes_min = 4096
"""Payloads of this size and above travel as frames of their own."""
session_batches_in_flight_max = 1024
session_bytes_in_flight_max = 256 << 20
session_ack_delay_s = 0.05
session_ack_every_batches = 64
session_resend_after_s = 2.0
session_resend_after_s_max = 30.0
shortcuts_max = 256
"""Short ways to peers of the same node that a process has at a time; the others are reached over ZeroMQ alone."""
shortcut_after_batches = 2
"""Batches sent on a link before it gets a shortcut: who is talked to once does without."""
shortcut_packet_bytes_max = 64 << 10

loop_held_s_max = 0.05
"""A turn of the loop that takes longer is told in debug mode."""
trace_bytes_max = 16 << 20
trace_files_kept_max = 2

# -- calls -------------------------------------------------------------------------------------------------------------
inline_bytes_max = 100 * 1024
"""Results and arguments up to this size travel inside messages; larger ones go to shared memory."""
flush_after_calls = 256
window_calls_max = 1024
window_work_s = 0.010
lease_requests_in_flight_max = 4
lease_idle_s = 1.0
cancel_grace_s = 0.5
"""Code that looks itself whether it was cancelled has so long to end before an exception is raised in it."""
task_events_pending_max = 10_000
task_events_finished_max = 200  # of successful calls, per batch; the others are only counted
lineage_bytes_max = 256 << 20
lineage_batch_s = 0.05
lineage_row_bytes_max = 1 << 20

locality_bytes_min = 1 << 20
"""Arguments of this size and above are worth going where they lie; smaller ones travel faster than tasks wait."""
pack_until_fraction = 0.5
"""Work is packed on a node until so much of it is used, and spread over all nodes from then on."""

# -- node --------------------------------------------------------------------------------------------------------------
stderr_tail_bytes_max = 4096
print_forward_bytes_per_s = 1 << 20
"""Prints of one worker that are passed on to the driver; what comes faster lies in the worker's file only."""
print_line_bytes_max = 1 << 18
"""A line that is longer is passed on in pieces."""
print_on_the_way_bytes_max = 1 << 20
"""Bytes on the way to a driver from which on prints wait in the node: the driver is stopped, or too busy to take them.
"""
print_backlog_bytes_max = 4 << 20
"""Prints that wait for one driver; the oldest are dropped for newer ones, and counted."""
print_look_again_s = 0.1
print_file_bytes_max = 16 << 20
"""A worker's file of prints is then put aside, in place of the one before."""
worker_idle_s = 60.0
worker_start_timeout_s = 60.0
spill_again_after_s = 0.3
"""A request that was passed on as often as it may be is passed on again after this long, when views have caught up."""
infeasible_after_s = 2.0
"""A demand that no node could satisfy is reported as such after this long (nodes may be joining)."""
node_report_period_s = 0.1
views_told_per_s_max = 10_000
"""Reports that the GCS takes in a second; it tells nodes of each other twice as often. With more nodes than a period
has room for, periods grow."""
views_in_message_max = 128
"""Nodes of which one message tells what they have free, and among which a task is placed before all are looked at."""
unknown_node_tries_max = 50  # a report period apart: a node of which we have not heard yet
drain_deadline_s = 30.0
"""How long a node that is asked to leave may take, unless told otherwise."""
drain_deadline_s_max = 7 * 86_400.0
drain_look_period_s = 0.05
drain_closing_s = 5.0
"""Before the deadline: from then on actors that can't go anywhere are saved all the same."""
drain_object_patience_s = 10.0
drain_objects_told_every_s = 1.0
drain_objects_per_message_max = 10_000
last_word_s = 2.0
"""Whoever ends in good order waits this long until it is heard: a worker for its node, a drained node for the GCS."""
heartbeat_period_s = 0.5
lease_wait_told_after_s = 0.1
lease_wait_told_every_s = 0.5
"""Why a request waits changes with every lease that comes and goes; whoever waits hears of it no more often."""
worker_start_told_after_s = 3.0
wait_probe_after_s = 0.2
wait_probe_every_s = 1.0
wait_probe_every_s_max = 4.0
wait_probe_path_max = 100
node_suspected_after_s = 3.0
node_lost_after_s = 8.0
gcs_silence_s = 2.0
"""A node that has heard nothing of the GCS for this long dials it anew, and registers again."""

# -- durable actors ----------------------------------------------------------------------------------------------------
call_log_bytes_max = 256 << 20
"""Records since the last checkpoint: from a half on one is taken, at the whole no call starts until there is one."""
call_log_segment_bytes_max = 8 << 20
crashes_in_a_row_max = 3
"""A call that has ended its worker so often, with nothing else in between, is answered and never run again."""
checkpoint_in_message_bytes_max = 16 << 20
"""Larger checkpoints go to a store of their own."""
stored_part_bytes = 8 << 20
"""Of a file of such a store, in one message to another node."""
calls_remembered_max = 1000
"""Of a durable actor, for those who ask what it did last."""
shadow_objects_max = 1_000_000
"""Of a state whose sets get another order, where it is looked whether methods do the same twice."""
settled_delay_s = 0.05
log_retry_s = 1.0
log_forget_delay_s = 1.0
"""What is left of an actor is removed so long after its end: its process may be writing its last words."""
logs_held_told_max = 10_000
"""Actors that a node names in one message, of those that have left something on its disk."""
log_fetch_timeout_s = 5.0
checkpoint_retry_s = 5.0

# -- GCS ---------------------------------------------------------------------------------------------------------------
task_records_max = 20_000
object_records_max = 20_000
lineage_rows_bytes_max = 64 << 20
"""Of objects whose references have left their owner's process."""
dead_actors_kept_max = 1_000
lost_nodes_kept_max = 1_000
answers_kept_max = 10_000
journal_retry_s = 1.0
unknown_actor_grace_s = 2.0
"""Who subscribes to an actor that nobody has registered waits this long: its creator may be about to say it again."""
checkpoint_bytes_in_lmdb_max = 64 << 20
lmdb_map_bytes = 64 << 30
kv_key_bytes_max = 500  # namespace, a NUL and the key; LMDB takes 511

# -- store -------------------------------------------------------------------------------------------------------------
dead_owners_kept_max = 10_000
orphan_claim_s = 5.0
"""An object that comes when its owner is gone already is kept for so long: a borrower may be about to claim it."""
slab_bytes_min = 8 << 20
"""Objects much smaller than this share slabs of this size; larger ones get a slab of their own size class."""
slab_free_bytes_max_fraction = 0.5
spill_bytes_max_fraction = 0.8

# -- objects between nodes ---------------------------------------------------------------------------------------------
pull_chunk_bytes = 2 << 20
"""One message of a transfer: what comes between two of them waits no longer than it takes to send one."""
pull_window_chunks_min = 2
pull_window_chunks_max = 16
"""Chunks asked of one source and not yet there. The window grows while they come fast, shrinks when they are late."""
pull_fast_s = 0.1
pull_slow_s = 0.5
pull_bytes_in_flight_max = 64 << 20
pulls_open_max = 32
pull_sources_max = 2
pull_second_source_bytes_min = 64 << 20
"""Objects of this size and above are pulled from two nodes at once where two have it."""
pull_answer_timeout_s = 5.0
pull_tick_s = 1.0
pull_children_max = 2
"""Nodes that one node serves one object to at a time; the others take it from those."""
served_objects_max = 10_000

# -- failure detection -------------------------------------------------------------------------------------------------
local_pause_s = 1.5
"""An observer whose tick comes later than this after the one before was itself asleep: silence is not held against
anybody."""
local_pause_graces_max = 3
"""That many pauses in a row excuse one peer; then its silence counts, however sleepy the observer."""
fences_kept_max = 100_000
peer_story_max = 16

# -- access ------------------------------------------------------------------------------------------------------------
handshake_timeout_s = 5.0
"""Who has connected over TCP and has not proved a key by then is disconnected."""
handshakes_max = 64
"""Connections over TCP that have not proved a key yet; any more are disconnected at once and may try again."""
tcp_frame_bytes_max = batch_body_bytes_max + (64 << 10)
"""Largest frame over TCP. libzmq buffers a frame of that size before the sender has proved anything."""
new_key_grace_s = 3.0
"""An unknown key may be one that we have not heard of yet: for so long it is told to come again, and then refused."""
new_key_forgotten_s = 60.0
new_keys_waiting_max = 256
access_keys_max = 10_000
access_addresses_max = 64
"""Addresses remembered of one key; of a key seen at more, a revocation disconnects everybody."""
key_file_bytes_max = 4096
key_register_bytes_max = 16 << 20
