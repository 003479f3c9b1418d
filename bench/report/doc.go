// Package report makes figures for people and programs out of samples: a table, JSON, a
// chart. It measures nothing, and what it writes depends on its input alone.
package report
