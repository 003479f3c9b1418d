package answer

import (
	"bytes"
	_ "embed" // template and schema
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"winvm/hostagent/guest"
)

//go:embed winnt.tmpl
var winntText string

var winntTemplate = template.Must(template.New("winnt.sif").Parse(winntText))

// WinntSIF is winnt.sif.
func WinntSIF(p Params) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err := winntTemplate.Execute(&b, map[string]any{
		"P": p, "Setup": p.Profile.Setup, "Address": guest.GuestIPv4, "Computer": computer,
		"Rule": ruleName, "Start": `A:\` + Starter,
	})
	if err != nil {
		return nil, fmt.Errorf("winnt.sif: %w", err)
	}
	out := bytes.ReplaceAll(b.Bytes(), []byte("\n"), []byte("\r\n"))
	if err := CheckSIF(out); err != nil {
		return nil, err
	}
	return out, nil
}

//go:embed winnt.schema
var sifSchemaText string

var sifSchema = parseSIFSchema(sifSchemaText)

// A sifKey is what the schema says of a key.
type sifKey struct {
	rule
	required bool
}

func parseSIFSchema(text string) map[string]map[string]sifKey {
	out := map[string]map[string]sifKey{}
	section := ""
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "#":
		case words[0][0] == '[':
			section = strings.Trim(words[0], "[]")
			out[section] = map[string]sifKey{}
		default:
			var k sifKey
			k.name, k.required = strings.CutSuffix(words[0], "!")
			switch words[1] {
			case "int":
				k.value = "int"
			case "text":
				k.value = "text"
				k.limit, _ = strconv.Atoi(words[2])
			default:
				k.of = strings.Split(words[1], "|")
			}
			out[section][k.name] = k
		}
	}
	return out
}

// SIF is a winnt.sif: values by section and key.
type SIF map[string]map[string]string

// CheckSIF refuses a winnt.sif that Setup would misunderstand.
func CheckSIF(data []byte) error {
	_, err := ParseSIF(data)
	return err
}

var sifLine = regexp.MustCompile(`^([A-Za-z0-9_]+) = (?:"([^"]*)"|([^" ;]+))$`)

// ParseSIF reads a winnt.sif and checks it against the schema.
func ParseSIF(data []byte) (SIF, error) {
	if len(data) > maxAnswer {
		return nil, fmt.Errorf("%w: winnt.sif has %d bytes, more than %d", ErrAnswer, len(data), maxAnswer)
	}
	out := SIF{}
	var errs []error
	section := ""
	for i, line := range strings.Split(string(data), "\r\n") {
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("line %d: %s", i+1, fmt.Sprintf(format, args...)))
		}
		if strings.IndexFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
			bad("want printable ASCII, and lines that end with CR LF")
			continue
		}
		switch {
		case line == "" || line[0] == ';':
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			section = line[1 : len(line)-1]
			if sifSchema[section] == nil {
				bad("no section [%s]", section)
			}
			if out[section] != nil {
				bad("section [%s] is there twice", section)
			}
			out[section] = map[string]string{}
		default:
			if err := out.key(section, line); err != nil {
				bad("%v", err)
			}
		}
	}
	errs = append(errs, out.missing()...)
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w: winnt.sif: %w", ErrAnswer, err)
	}
	return out, nil
}

// key takes a line like Key = value or Key = "value".
func (s SIF) key(section, line string) error {
	m := sifLine.FindStringSubmatch(line)
	if m == nil || section == "" {
		return errors.New("want a line like Key = value in a section")
	}
	k, known := sifSchema[section][m[1]]
	value := m[2] + m[3]
	fits := slices.Contains(k.of, value)
	switch k.value {
	case "int":
		fits = numeral.MatchString(value)
	case "text":
		fits = len(value) <= k.limit
	}
	switch _, twice := s[section][m[1]]; {
	case !known:
		return fmt.Errorf("section [%s] has no key %s", section, m[1])
	case twice:
		return fmt.Errorf("%s is there twice", m[1])
	case !fits: // not the value: it may be a secret
		return fmt.Errorf("%s holds what it can't: want %s", m[1], k.describe())
	}
	s[section][m[1]] = value
	return nil
}

// optionalSections need not be there.
var optionalSections = []string{"LicenseFilePrintData"}

func (s SIF) missing() []error {
	var errs []error
	for section, keys := range sifSchema {
		if s[section] == nil {
			if !slices.Contains(optionalSections, section) {
				errs = append(errs, fmt.Errorf("section [%s] is missing", section))
			}
			continue
		}
		for name, k := range keys {
			if _, ok := s[section][name]; k.required && !ok {
				errs = append(errs, fmt.Errorf("section [%s] lacks %s", section, name))
			}
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errs
}
