// Package queue lets the runs of one state directory begin in turn: not more at once
// than there are places, and not more than the host has memory for. There is no
// daemon; a run that is killed leaves nothing that others would wait for.
//
// # Tickets
//
//	queue/lock          flock: held for a moment, while tickets are read or changed
//	queue/tickets/N     one ticket, flock'ed as long as its process lives
//
// Who comes takes the next number. A ticket whose file nobody holds a lock on is of a
// process that has ended, however that was: who sees it removes it. A ticket says
// whether its run waits, runs, or rests (its pair is kept: it takes memory and no
// place), and how much memory the run can come to take.
//
// The waiting ticket with the lowest number is next. It begins when a place is free
// and its memory fits: into what the host has available, less what the runs at work
// may still come to take, less a margin. Nobody overtakes, so a large one is not
// starved by small ones; but a process that stands still (SIGSTOP) is passed. Tickets that take no place (shells, which somebody sits in
// front of) wait for memory only, and for nobody.
//
// # Waiting
//
// The kernel tells of a ticket that was closed, also by the death of its process, and
// of one that was changed (inotify). Of memory that others gave back nobody tells, so
// everything is looked at once a second as well.
//
// # Limits of it
//
// Memory is reserved for the worst case, in which a guest touches all of its memory.
// Processes outside of the queue are seen in what is available, and not foreseen.
// Runs of another state directory count as such. All tickets compare the number of
// runs with a limit of their own: two with different --jobs each keep to theirs.
package queue
