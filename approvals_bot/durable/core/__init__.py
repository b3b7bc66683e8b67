"""The pure core: a log of events goes in, commands come out.

Everything in this package keeps these laws:

1. **The log is the run.** A run is its events. Everything else is derived from them, or is an index.
2. **Replay is pure.** `replay(workflow, log)` does no I/O, reads no clock and uses no threads. The body runs on an
   event loop of our own: all ready callbacks run until none is left, then exactly one event is delivered, and so on. A
   program that sees one fact at a time sees the same order every time.
3. **Identity is position.** Commands are numbered in the order the code asks for them. A recorded command must match
   the one asked for now; otherwise the code has drifted from its log (`NondeterminismError`).
4. **Decisions are compare-and-append; facts are free.** A replay's decisions are appended only if the log hasn't grown
   since it was read. What happened outside (a step's outcome, a payload, a due timer) is appended whenever it
   happens, under a key of its own, which makes a repeat a no-op.
5. **Suspension is not an exception.** A suspended run is closed like a generator: only the author's `finally` blocks
   run, and their commands are ignored.
"""
