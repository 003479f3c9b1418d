package guest

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"
)

//go:embed profiles/*.yaml
var embedded embed.FS

// maxProfile bounds a profile's file.
const maxProfile = 256 << 10

// Names lists the profiles that winvm brings.
func Names() []string {
	entries, err := fs.ReadDir(embedded, "profiles")
	if err != nil {
		panic(err) // the directory is compiled in
	}
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	slices.Sort(out)
	return out
}

// Source returns the file of a profile that winvm brings.
func Source(name string) ([]byte, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("%w: %q (there are: %s)", ErrUnknown, name, strings.Join(Names(), ", "))
	}
	return embedded.ReadFile(path.Join("profiles", name+".yaml"))
}

// Find returns the profile of that name.
func Find(name string) (Profile, error) {
	b, err := Source(name)
	if err != nil {
		return Profile{}, err
	}
	return Parse(name+".yaml", b)
}

// ReadFile returns the bytes of a user's own profile, and what they say.
func ReadFile(file string) (Profile, []byte, error) {
	st, err := os.Stat(file)
	if err != nil {
		return Profile{}, nil, fmt.Errorf("guest profile: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > maxProfile {
		return Profile{}, nil, fmt.Errorf("guest profile %s: want a file of at most %d bytes", file, maxProfile)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return Profile{}, nil, fmt.Errorf("guest profile: %w", err)
	}
	p, err := Parse(file, b)
	return p, b, err
}

// Parse reads a profile. The errors name file, line and field: all of them, if it
// is YAML and has no unknown field.
func Parse(file string, data []byte) (Profile, error) {
	var p Profile
	if err := yaml.UnmarshalWithOptions(data, &p, yaml.Strict()); err != nil {
		var at yaml.Error
		if errors.As(err, &at) && at.GetToken() != nil {
			pos := at.GetToken().Position
			return p, fmt.Errorf("guest profile: %s:%d:%d: %s (near %q)", file, pos.Line, pos.Column, at.GetMessage(), at.GetToken().Value)
		}
		return p, fmt.Errorf("guest profile: %s: %w", file, err)
	}
	wrong := p.check()
	if len(wrong) == 0 {
		return p, nil
	}
	var errs []error
	for _, w := range wrong {
		errs = append(errs, fmt.Errorf("guest profile: %s:%d: %s: %w", file, lineOf(data, w.field), w.field, w.err))
	}
	return p, errors.Join(errs...)
}

// lineOf is the line of a field, or, if it isn't there, of what it should be in.
func lineOf(data []byte, field string) int {
	f, err := parser.ParseBytes(data, 0)
	if err != nil {
		return 1
	}
	for field != "" {
		if p, err := yaml.PathString("$." + field); err == nil {
			if node, err := p.FilterFile(f); err == nil && node != nil && node.GetToken() != nil {
				return node.GetToken().Position.Line
			}
		}
		cut := strings.LastIndexAny(field, ".[")
		field = field[:max(cut, 0)]
	}
	return 1
}
