package recipe

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// A Tool is a program of the host that a recipe's build.sh runs, and the Debian
// package that has it.
type Tool struct{ Name, Package string }

// toolsPattern is how a build.sh lists its tools: a variable of NAME=PACKAGE or
// NAME:PACKAGE pairs, over as many lines as it takes.
var toolsPattern = regexp.MustCompile(`(?m)^(?:host_)?tools='([^']*)'`)

// Tools lists the host's programs that a recipe needs.
func Tools(name string) ([]Tool, error) { return embedded.tools(name) }

func (s set) tools(name string) ([]Tool, error) {
	b, err := fs.ReadFile(s.files, name+"/build.sh")
	if err != nil {
		return nil, fmt.Errorf("no recipe %q: %w", name, err)
	}
	m := toolsPattern.FindSubmatch(b)
	if m == nil {
		return nil, fmt.Errorf("recipe %q does not list its tools", name)
	}
	var out []Tool
	for _, f := range strings.Fields(string(m[1])) {
		i := strings.IndexAny(f, "=:")
		if i < 1 {
			return nil, fmt.Errorf("recipe %q: tool %q is not of the form NAME=PACKAGE", name, f)
		}
		out = append(out, Tool{Name: f[:i], Package: f[i+1:]})
	}
	return out, nil
}

// Names lists the recipes.
func Names() []string {
	entries, _ := fs.ReadDir(embedded.files, ".")
	out := make([]string, 0, len(entries))
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}
