package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"winvm/hostagent/image/recipe"
	"winvm/hostagent/pair"
)

// helpers looks for the programs that go into the VMs.
func (h *host) helpers(context.Context) Check {
	for _, f := range h.Helpers {
		st, err := os.Stat(filepath.Join(h.LibexecDir, f))
		if err == nil && (!st.Mode().IsRegular() || st.Size() == 0) {
			err = fmt.Errorf("%s is no program", filepath.Join(h.LibexecDir, f))
		}
		if err != nil {
			return bad(Fail, "`make build` puts them beside hostagent; --libexec-dir or WINVM_LIBEXEC_DIR names another directory", "%v", err)
		}
	}
	return ok("%s in %s", strings.Join(h.Helpers, " and "), filepath.Clean(h.LibexecDir))
}

// keyring is what the recipes check packages with.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// tools looks for the programs that the recipes run.
func (h *host) tools(context.Context) Check {
	missing := map[string]bool{} // packages
	total := map[string]bool{}
	for _, r := range recipe.Names() {
		tools, err := recipe.Tools(r)
		if err != nil {
			return bad(Fail, "this is a fault of winvm", "%v", err)
		}
		for _, t := range tools {
			if total[t.Name] = true; !installed(t.Name) {
				missing[t.Package] = true
			}
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		missing["debian-archive-keyring"] = true
	}
	if len(missing) == 0 {
		return ok("all %d are installed", len(total))
	}
	packages := make([]string, 0, len(missing))
	for p := range missing {
		packages = append(packages, p)
	}
	slices.Sort(packages)
	return bad(h.needed(), "apt-get install "+strings.Join(packages, " "), "`hostagent image create` misses some; builds don't need them")
}

// installed looks for a program where the recipes find it.
func installed(name string) bool {
	if _, err := exec.LookPath(name); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} { // not on every user's PATH
		if unixExecutable(filepath.Join(dir, name)) {
			return true
		}
	}
	return false
}

func unixExecutable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// samba says where it is: in the controller, not on the host.
func (h *host) samba(context.Context) Check {
	for _, i := range h.images {
		b, err := os.ReadFile(i.Path(pair.Controller, recipe.Packages))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "samba" {
				return ok("%s in the controller VM of image %s", f[1], i.Name)
			}
		}
	}
	if installed("smbd") {
		return ok("comes in the controller VM; the tests find smbd here")
	}
	return ok("comes in the controller VM; only the tests need it here (apt-get install samba)")
}
