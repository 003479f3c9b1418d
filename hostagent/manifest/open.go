package manifest

import (
	"strings"

	"golang.org/x/sys/unix"
)

// resolve keeps every look-up below the directory it starts in, whatever
// symbolic links there are. Mounts are crossed: in a Nix sandbox every store
// path is one.
const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// maxStep is the longest path that is opened in one go (PATH_MAX is 4096).
const maxStep = 4000

// OpenBeneath opens rel, a path below the directory dir, without following a
// symbolic link anywhere. rel may be longer than PATH_MAX; "" is dir itself.
func OpenBeneath(dir int, rel string, flags int) (int, error) {
	at := dir
	for len(rel) > maxStep {
		i := strings.LastIndexByte(rel[:maxStep], '/')
		if i <= 0 {
			break
		}
		next, err := openat2(at, rel[:i], unix.O_PATH|unix.O_DIRECTORY)
		if at != dir {
			_ = unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at, rel = next, rel[i+1:]
	}
	if rel == "" {
		rel = "."
	}
	fd, err := openat2(at, rel, flags)
	if at != dir {
		_ = unix.Close(at)
	}
	return fd, err
}

func openat2(dir int, path string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC), Resolve: resolve}
	for {
		fd, err := unix.Openat2(dir, path, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}
