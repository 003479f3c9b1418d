// Package patience waits for the answer that a process owes, and tells a process that
// stands still from one that is kept from running.
//
// A limit in seconds can't: on a host that is busy, or under emulation, what answers in a
// millisecond takes seconds, and a limit that allows for that leaves a user in front of a
// VM that has hung for a minute. So [Wait] looks at what the process does while its
// answer is late (proc(5), once every [Tick]):
//
//   - it was idle: none of its threads ran, wanted to run, was in a page fault that
//     needs a disk, or waited for a disk. Nothing can be coming any more, and a short
//     limit does (Limits.Idle).
//   - it ran: it is slow, or it spins. Its CPU time counts, which on a busy host passes
//     more slowly than time does (Limits.Busy).
//   - neither: it waits for a CPU or a disk, which is the host's business. Only the limit
//     in all counts (Limits.Wall).
//
// Time in which the waiting process stood still itself counts as none of the first two. Nothing is
// looked at while answers come at once.
package patience
