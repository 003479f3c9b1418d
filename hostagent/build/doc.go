// Package build runs one command in a revived pair and collects what it left.
//
// # The way of a build
//
//	prepare   image, inputs and output are checked; a run directory is made
//	scan      the closure's metadata is read            } side by side
//	revive    both QEMUs start and load their state     }
//	channel   resync, greeting; the shares are attached in the controller
//	command   winvm-run.exe, parked since the suspend, is told which job to run;
//	          output streams
//	flush     everything written is on the host, or the build fails
//	collect   both exit codes are compared; outputs are moved to their place
//	teardown  both QEMUs are killed, the run directory removed
//
// # What ends a command
//
// Its own exit; its timeout; its maximal silence; the death of either VM, of smbd or
// of the SSH connection; the caller's context. Whatever comes first is the cause
// that is told.
//
// # Outputs
//
// They are staged beside their destination, on the same file system, and renamed
// there only when the command has succeeded and everything is flushed. So the
// destination is whole or absent, and a full disk is found before the end. What a program
// that the command left running in the guest still writes after the flush is refused.
package build
