// Package hostagent wires the parts of the host's side: images, VMs, sessions and
// builds. It owns no logic; each part is a package below this one, and the command
// line (cmd/hostagent) parses flags and calls one method of Host.
package hostagent
