package guest

import "time"

// wine is a small Debian with Wine that looks like a Windows machine from outside
// (recipe/wine/README.md). It needs no licence.
var wine = Profile{
	Name:    "wine",
	Summary: "Debian with Wine: runs 64-bit Windows programs, needs no licence",
	Recipe:  "wine",
	Machine: Machine{
		MemoryMiB: 1024,
		MinMemory: 512,
		CPUs:      1,
		MaxCPUs:   16,
		// -cpu max breaks Wine under QEMU 7.2's TCG (SMAP), and qemu64 is quicker
		// there; x86-64-v2 is what Wine and current Windows programs may use.
		CPUModel:   map[string]string{"tcg": "qemu64", "kvm": "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt"},
		Append:     "console=tty0 console=ttyS0 quiet panic=-1 mitigations=off",
		BootLimitS: 120,
	},
	SSH: SSH{Port: 22, User: "Administrator"},
	SMB: SMB{MinProtocol: "SMB3_11"},
	Drives: []Drive{
		{Letter: "S", Share: ShareStore},
		{Letter: "X", Share: ShareXchg},
	},
	RunnerPath: `C:\winvm\winvm-run.exe`,
	InstallRunner: []string{
		`if not exist C:\winvm mkdir C:\winvm`,
		`copy /y X:\winvm-run.exe C:\winvm\winvm-run.exe`,
	},
	WarmUp: []string{
		`@echo off`,
		`dir S:\ X:\ >nul`,
		`cmd /c ver >nul`,
		`exit 0`,
	},
	Settle:   2500 * time.Millisecond, // actimeo=1: recipe/wine/README.md
	ExitBits: 8,
}
