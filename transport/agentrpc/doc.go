// Package agentrpc is what the host agent asks the controller agent to do beside
// serving files: attach the shares of a build, connect to the guest, run a
// command in it, flush, get ready for a suspend.
//
// Requests are package rpc's, on the stream "agent", with JSON bodies: they are few
// and small, and easy to read in a capture. Running a command is a stream of its
// own, "exec", because its output has to be live and of any length: see ExecConn.
//
// The host side is not trusted less than the controller side here, but the
// controller side is: everything that comes from it is bounded (MaxMessage,
// MaxExecFrame) and used as text or a number only.
package agentrpc
