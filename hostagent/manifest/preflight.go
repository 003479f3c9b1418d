package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"winvm/transport/wire"
)

// ProblemKind is a reason why Windows can't have a file as it is.
type ProblemKind int

// The kinds of problems.
const (
	// ReservedName: a device's name, as CON or nul.txt.
	ReservedName ProblemKind = iota + 1
	// BadCharacter: one of <>:"|?*\ or a control character.
	BadCharacter
	// TrailingDot: the name ends in a dot or a space.
	TrailingDot
	// NotUTF8: the name is no text.
	NotUTF8
	// CaseTwin: another name beside it differs only in case.
	CaseTwin
	// LongPath: longer than 259 characters, the drive included.
	LongPath
	// SpecialFile: a FIFO, socket or device.
	SpecialFile
)

// maxPath is Windows's MAX_PATH without the NUL.
const maxPath = 259

// drivePrefix is how many characters stand before a store path's name: "S:\".
const drivePrefix = 3

// Says what is wrong.
func (k ProblemKind) String() string {
	switch k {
	case ReservedName:
		return "is the name of a device in Windows"
	case BadCharacter:
		return `has a character that Windows does not allow in names (<>:"|?*\ or a control character)`
	case TrailingDot:
		return "ends in a dot or a space, which Windows drops"
	case NotUTF8:
		return "is not valid UTF-8"
	case CaseTwin:
		return "differs from another name only in case"
	case LongPath:
		return "has a path of more than 259 characters"
	case SpecialFile:
		return "is a FIFO, a socket or a device"
	default:
		return fmt.Sprintf("problem %d", int(k))
	}
}

// Effect says what a program in the guest will meet.
func (k ProblemKind) Effect() string {
	switch k {
	case ReservedName, BadCharacter, TrailingDot, NotUTF8:
		return "listings show it under a made-up short name (as ABCDEF~1), and only that opens it"
	case CaseTwin:
		return "asked for exactly it may be found, in another case either may be; programs that cache names may mix them up"
	case LongPath:
		return `only programs that are made for long paths, or use \\?\, can open it by its full path`
	case SpecialFile:
		return "it is left out"
	default:
		return ""
	}
}

// A Problem is one file that Windows can't represent as it is.
type Problem struct {
	Kind ProblemKind
	Path string // below the store directory
	Twin string // CaseTwin: the other's path
}

// String is one line for the user.
func (p Problem) String() string {
	path := p.Path
	if p.Twin != "" {
		return fmt.Sprintf("%q differs from %q only in case: %s", path, p.Twin, p.Kind.Effect())
	}
	return fmt.Sprintf("%q %s: %s", path, p.Kind, p.Kind.Effect())
}

// WindowsName says why Windows can't have a file called name; "" if it can.
func WindowsName(name string) string {
	if k := nameProblem(name); k != 0 {
		return k.String()
	}
	return ""
}

func nameProblem(name string) ProblemKind {
	for i := range len(name) {
		if c := name[i]; c < 0x20 || strings.IndexByte(`<>:"|?*\/`, c) >= 0 {
			return BadCharacter
		}
	}
	switch {
	case !utf8.ValidString(name):
		return NotUTF8
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " "):
		return TrailingDot
	case reserved(name):
		return ReservedName
	}
	return 0
}

// reserved: the device names of "Naming Files, Paths, and Namespaces"
// (learn.microsoft.com/windows/win32/fileio/naming-a-file), with any extension.
func reserved(name string) bool {
	base, _, _ := strings.Cut(name, ".")
	base = strings.ToUpper(strings.TrimRight(base, " "))
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	if port, ok := strings.CutPrefix(base, "COM"); ok {
		return isPort(port)
	}
	port, ok := strings.CutPrefix(base, "LPT")
	return ok && isPort(port)
}

// isPort: a digit from 1 to 9; the superscripts of Latin-1 count as digits.
func isPort(s string) bool {
	return len(s) == 1 && s[0] >= '1' && s[0] <= '9' || s == "¹" || s == "²" || s == "³"
}

// Preflight lists every file of the closure that Windows can't have as it is, in
// the order of the closure.
func Preflight(ms []*Manifest) []Problem {
	var out []Problem
	tops := make([]string, 0, len(ms))
	for _, m := range ms {
		tops = append(tops, m.Name)
	}
	out = append(out, twins("", tops)...)
	for _, m := range ms {
		out = append(out, m.preflight()...)
	}
	return out
}

func (m *Manifest) preflight() []Problem {
	var out []Problem
	if k := nameProblem(m.Name); k != 0 {
		out = append(out, Problem{Kind: k, Path: m.Name})
	}
	s := m.Section
	// chars are the lengths of the directories' paths, with the drive.
	chars := map[uint32]int{0: drivePrefix + utf16Len(m.Name)}
	if chars[0] > maxPath {
		out = append(out, Problem{Kind: LongPath, Path: m.Name})
	}
	var names []string
	for dir := range s.Len() {
		if s.Kind(dir) != wire.KindDir {
			continue
		}
		e := s.Entry(dir)
		names = names[:0]
		for c := e.First; c < e.First+e.Count; c++ {
			name := s.Name(c)
			names = append(names, name)
			long := chars[dir] + 1 + utf16Len(name)
			if s.Kind(c) == wire.KindDir {
				chars[c] = long
			}
			if k := nameProblem(name); k != 0 {
				out = append(out, Problem{Kind: k, Path: m.Path(c)})
			}
			if long > maxPath {
				out = append(out, Problem{Kind: LongPath, Path: m.Path(c)})
			}
		}
		delete(chars, dir)
		if found := twinNames(names); len(found) > 0 {
			out = append(out, twins(m.Path(dir)+"/", found)...)
		}
	}
	for _, p := range m.Skipped {
		out = append(out, Problem{Kind: SpecialFile, Path: m.Name + "/" + p})
	}
	return out
}

// utf16Len is the length Windows counts: in units of UTF-16.
func utf16Len(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r > 0xffff {
			n++
		}
	}
	return n
}

// twinNames returns the names of which there is more than one but for case.
func twinNames(names []string) []string {
	seen := make(map[string]int, len(names))
	dup := false
	for _, n := range names {
		f := wire.FoldName(n)
		seen[f]++
		dup = dup || seen[f] > 1
	}
	if !dup {
		return nil
	}
	var out []string
	for _, n := range names {
		if seen[wire.FoldName(n)] > 1 {
			out = append(out, n)
		}
	}
	return out
}

// twins tells of every name that follows another, equal but for case.
func twins(prefix string, names []string) []Problem {
	type folded struct{ fold, name string }
	list := make([]folded, 0, len(names))
	for _, n := range names {
		list = append(list, folded{wire.FoldName(n), n})
	}
	slices.SortFunc(list, func(a, b folded) int {
		return cmp.Or(strings.Compare(a.fold, b.fold), strings.Compare(a.name, b.name))
	})
	var out []Problem
	for i, x := range list {
		if i > 0 && x.fold == list[i-1].fold {
			out = append(out, Problem{Kind: CaseTwin, Path: prefix + x.name, Twin: prefix + list[i-1].name})
		}
	}
	return out
}
