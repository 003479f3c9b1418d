package guest

// A Setup says how a guest is installed from its vendor's medium.
type Setup struct {
	// Answer is the kind of answer file: WinntSIF on a floppy, or AutoUnattend on a CD.
	Answer string `yaml:"answer" json:"answer"`
	// Architectures that the vendor's medium can be of; the first is the default.
	Architectures []string `yaml:"architectures" json:"architectures"`
	// Editions by the vendor's ID; the first that a medium has is taken.
	Editions []string `yaml:"editions" json:"editions"`
	// Kind is the family a medium must be of: client or server, xp or 2003.
	Kind string `yaml:"kind" json:"kind"`
	// MinBuild and MaxBuild bound the build number of the medium; 0 is no bound.
	MinBuild int `yaml:"min_build,omitempty" json:"min_build,omitempty"`
	MaxBuild int `yaml:"max_build,omitempty" json:"max_build,omitempty"`
	// Markers are files in the root of a medium without an image file, by edition.
	Markers map[string]string `yaml:"markers,omitempty" json:"markers,omitempty"`
	// NeedsKey refuses an install without --product-key.
	NeedsKey bool `yaml:"needs_key,omitempty" json:"needs_key,omitempty"`
	// BypassChecks turns off what Windows 11 asks of the machine.
	BypassChecks bool `yaml:"bypass_checks,omitempty" json:"bypass_checks,omitempty"`
	// SSHD is what brings the SSH server: OpenSSH or Cygwin.
	SSHD string `yaml:"sshd" json:"sshd"`
	// DriverDir is the name that virtio-win's ISO has for this Windows.
	DriverDir  string `yaml:"driver_dir,omitempty" json:"driver_dir,omitempty"`
	DiskGiB    int    `yaml:"disk_gib" json:"disk_gib"`
	MinDiskGiB int    `yaml:"min_disk_gib" json:"min_disk_gib"`
	Limits     Limits `yaml:"limits" json:"limits"`
}

// Kinds of answer files.
const (
	WinntSIF     = "winnt.sif"
	AutoUnattend = "autounattend.xml"
)

// Where the SSH server comes from.
const (
	OpenSSH = "openssh" // Win32-OpenSSH's zip
	Cygwin  = "cygwin"
)

// Limits of an install's stages, and how long nothing may change before it counts
// as stuck.
type Limits struct {
	Firmware   Duration `yaml:"firmware" json:"firmware"`
	Setup      Duration `yaml:"setup" json:"setup"`
	Copying    Duration `yaml:"copying" json:"copying"`
	FirstBoot  Duration `yaml:"first_boot" json:"first_boot"`
	FirstLogon Duration `yaml:"first_logon" json:"first_logon"`
	SSHD       Duration `yaml:"sshd" json:"sshd"`
	Stuck      Duration `yaml:"stuck" json:"stuck"`
}
