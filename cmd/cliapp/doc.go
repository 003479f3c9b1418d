// Package cliapp has what the programs share that people type: the commands that print a
// completion script and a manual page, and text from elsewhere made fit for a terminal.
package cliapp
