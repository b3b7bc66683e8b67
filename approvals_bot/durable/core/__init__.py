"""The pure heart: a log of events goes in, commands come out.

The laws that everything in here keeps:

1. **The log is the run.** A run is its events. Everything else is derived from them, or an index.
2. **Replay is pure.** `replay(workflow, log)` has no I/O, no clock and no threads. The body runs on an event loop of
our
   own: whatever is ready runs until nothing is, then exactly one event is delivered, and so on. A program that sees
   one fact at a time sees the same order every time.
3. **Identity is position.** Commands are numbered in the order the code asks for them. A recorded command must equal
the one asked for now, else the code has drifted from its log (`NondeterminismError`).
4. **Decisions are compare-and-append; facts are free.** What a replay decided is appended only if the log has not grown
   since it was read. What happened outside (a step's outcome, a payload, a due timer) is appended whenever it
   happens, under a key of its own, so that a repeat is a no-op.
5. **Suspension is not an exception.** A run that waits is closed like a generator: of the author's code only `finally`
   runs, and whatever it asks for is ignored.
"""
