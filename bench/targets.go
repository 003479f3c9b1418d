package main

import "winvm/bench/report"

// medianOf is the value of a target that is no ratio.
func medianOf(metric, side string) func(*report.Results) float64 {
	return func(r *report.Results) float64 { return report.Median(r.Values(metric, side)) }
}

// targets are the design's, as far as they are about the shares.
var targets = []report.Target{
	{Name: "cold walk and lstat, against 9p loose", Metric: "walk", Ours: "ours", Peer: "9p-loose", Must: 5, Aim: 10},
	{Name: "cold walk and lstat, against virtiofs", Metric: "walk", Ours: "ours", Peer: "virtiofs", Must: 3, Aim: 6},
	{Name: "cold small files, against 9p loose", Metric: "files", Ours: "ours", Peer: "9p-loose", Must: 4, Aim: 8},
	{Name: "cold small files, against virtiofs", Metric: "files", Ours: "ours", Peer: "virtiofs", Must: 4, Aim: 8},
	{Name: "bulk read over the wire alone, against the raw port", Metric: "read-1m", Ours: "ours-wire", Peer: rawSide, Must: 0.85, Aim: 0.95},
	{Name: "bulk write over the wire alone, against the raw port", Metric: "write-1m", Ours: "ours-wire", Peer: rawSide, Must: 0.6, Aim: 0.85},
	{Name: "bulk read with shared memory, against virtiofs", Metric: "read-1m", Ours: "ours", Peer: "virtiofs", Must: 1.5, Aim: 3},
	{Name: "bulk write with shared memory, against virtiofs", Metric: "write-1m", Ours: "ours", Peer: "virtiofs", Must: 1.5, Aim: 3},
	{Name: "small files over SMB, against QEMU's smb=", Metric: "smb-files", Ours: "smb-ours", Peer: "smb-slirp", Must: 1.5, Aim: 3},
	{Name: "small files over SMB, against 9p + Samba", Metric: "smb-files", Ours: "smb-ours", Peer: "smb-9p", Must: 1.5, Aim: 3},
	{Name: "closure of 100,000 files, until it can be used", Must: 2000, Aim: 500, Unit: "ms", Better: report.Lower, Value: medianOf("attach", "ours")},
	{Name: "memory for it in the controller, a file", Must: 200, Aim: 100, Unit: "B", Better: report.Lower, Value: medianOf("attach-memory", "ours")},
}
