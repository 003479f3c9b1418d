// Package cliapptest has the test of the documents' command lines that every program shares.
package cliapptest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// Examples checks that every command line of a program in the documents has a command and
// flags that there are. It is called in the directory of the program.
func Examples(t *testing.T, app *cli.App) {
	t.Helper()
	found := 0
	root := filepath.Join("..", "..")
	docs, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range append(docs, filepath.Join(root, "README.md")) {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			words, ok := example(app.Name, line)
			if !ok {
				continue
			}
			found++
			if what := wrong(app, words); what != "" {
				t.Errorf("%s: %q: there is no %s", doc, strings.TrimSpace(line), what)
			}
		}
	}
	if found < 3 {
		t.Errorf("%d examples were found", found)
	}
}

// example returns the words of an indented command line behind the program's name.
func example(program, line string) ([]string, bool) {
	if !strings.HasPrefix(line, "    ") {
		return nil, false
	}
	words := strings.Fields(line)
	if len(words) < 2 || filepath.Base(words[0]) != program || strings.HasPrefix(words[0], "cmd/") { // a package
		return nil, false
	}
	words = words[1:]
	if i := slices.IndexFunc(words, func(w string) bool {
		return w == "--" || w == "&" || w == "|" || strings.HasPrefix(w, "#") || strings.HasPrefix(w, ">")
	}); i >= 0 {
		words = words[:i]
	}
	return words, len(words) > 0
}

// wrong returns the first command or flag that doesn't exist.
func wrong(app *cli.App, words []string) string {
	flags, commands := app.Flags, app.Commands
	quoted := false
	for _, w := range words {
		if strings.Count(w, "'")%2 == 1 {
			quoted = !quoted
			continue
		}
		switch {
		case quoted:
		case strings.HasPrefix(w, "-") && len(w) > 1:
			name, _, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
			if name != "help" && name != "version" && !slices.ContainsFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) }) {
				return "flag " + w
			}
		case commands != nil:
			i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(w) })
			if i < 0 {
				if len(flags) > 0 && len(app.Flags) > 0 && &flags[0] == &app.Flags[0] {
					continue // the value of a flag for all commands
				}
				return "command " + w
			}
			flags = commands[i].Flags
			if commands = commands[i].Subcommands; len(commands) == 0 {
				commands = nil
			}
		}
	}
	return ""
}
