// Package samba renders smb.conf and runs smbd, the SMB server that re-exports the
// controller's two mounts to the guest.
//
// smbd runs with directories of its own (Config.Dir) and listens on the addresses
// given, so that the same code is tested on a developer's machine. There is one
// account, with a random password per image; no guest account, and the share's files are
// touched as that account's Unix user.
//
// What the settings are for is said beside each in Render. They were measured one by
// one (docs/performance.md); what is not named there is Samba's default, because another
// value gained nothing or gave up something.
package samba

import (
	"fmt"
	"strings"
)

// A Share is one directory to export.
type Share struct {
	Name string
	Path string

	// ReadOnlyAttribute makes the owner's w bit the read-only attribute, both ways. A
	// share of files that nobody may write is better off without: Windows programs
	// give the attribute on to their copies, and then can't write those.
	ReadOnlyAttribute bool
}

// Config is what smb.conf is made of.
type Config struct {
	Dir         string   // private directory for state, locks, pid files
	Interfaces  []string // addresses to listen on; empty: all
	Port        int      // 445 but in tests
	MinProtocol string   // SMB3_11, or NT1 for guests of Windows XP's time
	User        string   // SMB account and Unix user
	Password    string
	Shares      []Share
}

// Render returns the smb.conf for c. It is a pure function.
func Render(c Config) string {
	var b strings.Builder
	set := func(key, value string) { fmt.Fprintf(&b, "\t%s = %s\n", key, value) }
	b.WriteString("[global]\n")
	set("workgroup", "WINVM")
	set("netbios name", "CONTROLLER")
	set("server role", "standalone server")
	set("security", "user")
	set("map to guest", "never")
	set("restrict anonymous", "2")
	set("server min protocol", c.MinProtocol)
	set("server max protocol", "SMB3_11")
	if c.MinProtocol == "NT1" {
		set("ntlm auth", "ntlmv1-permitted")
		set("server signing", "auto")
	} else {
		set("ntlm auth", "ntlmv2-only")
		set("server signing", "mandatory")
	}
	set("smb ports", fmt.Sprint(c.Port))
	if len(c.Interfaces) > 0 {
		set("interfaces", strings.Join(c.Interfaces, " "))
		set("bind interfaces only", "yes")
	}
	for _, d := range []string{"private dir", "lock directory", "state directory", "cache directory", "pid directory", "ncalrpc dir"} {
		set(d, c.Dir+"/"+strings.Fields(d)[0])
	}
	set("passdb backend", "tdbsam:"+c.Dir+"/private/passdb.tdb")
	set("log file", c.Dir+"/log.smbd")
	set("max log size", "1000")
	set("logging", "file")
	set("disable spoolss", "yes")
	set("load printers", "no")
	set("printcap name", "/dev/null")
	set("disable netbios", "yes")
	set("dns proxy", "no")
	set("deadtime", "0")        // the connection lives on through a suspend
	set("keepalive", "0")       // and no probe may find its peer paused
	set("kernel oplocks", "no") // would switch level II off
	set("stat cache", "no")     // at a revive other files stand in the same place
	set("getwd cache", "no")    // likewise
	set("directory name cache size", "0")
	set("store dos attributes", "no") // an xattr call a file; there are none
	set("ea support", "no")
	// The archive attribute stays the owner's x bit (map archive): without any x smbd
	// refuses who asks for all rights to a file of his own.
	set("acl allow execute always", "yes") // Windows programs have no x bit
	set("follow symlinks", "yes")          // store links are absolute and resolve: same path here
	set("wide links", "no")
	set("unix extensions", "no")
	set("smb2 leases", "yes")
	for _, s := range c.Shares {
		fmt.Fprintf(&b, "\n[%s]\n", s.Name)
		set("path", s.Path)
		set("read only", "no") // what may be written the mount decides
		set("valid users", c.User)
		set("force user", c.User)
		set("create mask", "0755")
		set("directory mask", "0755")
		if s.ReadOnlyAttribute {
			set("map readonly", "yes")
		}
		set("vfs objects", "glusterfs_fuse") // names without regard to case, without a listing
	}
	return b.String()
}
