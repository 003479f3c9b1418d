package fsrpctest_test

import (
	"testing"

	"winvm/transport/fsrpc/fsrpctest"
)

// The suite must pass on what it takes as its model: a local directory.
func TestMountOfLocalDirectory(t *testing.T) {
	dir := t.TempDir()
	fsrpctest.TestMountLimits(t, dir, dir, fsrpctest.Limits{Plain: true})
}

func TestFullTmpfs(t *testing.T) {
	dir := fsrpctest.SmallTmpfs(t, 8<<20)
	fsrpctest.TestMountFull(t, dir, dir)
}

func TestMountOfTmpfs(t *testing.T) {
	dir := fsrpctest.SmallTmpfs(t, 256<<20)
	fsrpctest.TestMountLimits(t, dir, dir, fsrpctest.Limits{Plain: true})
}
