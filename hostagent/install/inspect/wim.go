package inspect

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"unicode/utf16"
)

// errWIM is an image file that can't be read.
var errWIM = errors.New("not a Windows image file")

// Limits of an image file's description.
const (
	wimHeader  = 208
	maxWIMXML  = 16 << 20
	maxWIMSize = 64 << 30
	maxImages  = 100
)

// An Image is one edition in an image file.
type Image struct {
	Index   int    `json:"index"` // from 1; 0 where there is no image file
	Name    string `json:"name"`
	Edition string `json:"edition"`
	Arch    string `json:"arch"` // x86_64, i686, or what the file says
	Build   int    `json:"build"`
}

// readWIM reads what an image file says of itself, from a stream of it: header, then
// all up to the description, which mostly is the last thing in it.
func readWIM(r io.Reader) ([]Image, error) {
	h := make([]byte, wimHeader)
	if _, err := io.ReadFull(r, h); err != nil {
		return nil, fmt.Errorf("%w: it ends within its header", errWIM)
	}
	if string(h[:8]) != "MSWIM\x00\x00\x00" || binary.LittleEndian.Uint32(h[8:]) != wimHeader {
		return nil, fmt.Errorf("%w: it has another header", errWIM)
	}
	// A resource: 7 bytes of size, flags, offset, size when unpacked.
	res := h[72:]
	size := binary.LittleEndian.Uint64(res) & (1<<56 - 1)
	flags, offset := res[7], binary.LittleEndian.Uint64(res[8:])
	if flags&4 != 0 || size == 0 || size > maxWIMXML || size%2 != 0 || offset < wimHeader || offset > maxWIMSize {
		return nil, fmt.Errorf("%w: a description of %d bytes at %d, flags %#x", errWIM, size, offset, flags)
	}
	if _, err := io.CopyN(io.Discard, r, int64(offset)-wimHeader); err != nil {
		return nil, fmt.Errorf("%w: it ends before its description: %w", errWIM, err)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, fmt.Errorf("%w: it ends within its description: %w", errWIM, err)
	}
	return parseWIM(text)
}

// parseWIM reads a description: XML in UTF-16.
func parseWIM(text []byte) ([]Image, error) {
	units := make([]uint16, len(text)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(text[2*i:])
	}
	if len(units) > 0 && units[0] == 0xfeff {
		units = units[1:]
	}
	var w struct {
		Images []struct {
			Index   int    `xml:"INDEX,attr"`
			Name    string `xml:"NAME"`
			Windows struct {
				Arch    *int   `xml:"ARCH"`
				Edition string `xml:"EDITIONID"`
				Version struct {
					Build int `xml:"BUILD"`
				} `xml:"VERSION"`
			} `xml:"WINDOWS"`
		} `xml:"IMAGE"`
	}
	d := xml.NewDecoder(bytes.NewReader([]byte(string(utf16.Decode(units)))))
	// Decoded above, whatever the declaration says.
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	if err := d.Decode(&w); err != nil {
		return nil, fmt.Errorf("%w: its description: %w", errWIM, err)
	}
	if len(w.Images) == 0 || len(w.Images) > maxImages {
		return nil, fmt.Errorf("%w: it has %d images", errWIM, len(w.Images))
	}
	var out []Image
	for _, i := range w.Images {
		if i.Index < 1 || i.Windows.Arch == nil || i.Windows.Edition == "" {
			continue // not one that can be installed
		}
		out = append(out, Image{
			Index: i.Index, Name: i.Name, Edition: i.Windows.Edition,
			Arch: archName(*i.Windows.Arch), Build: i.Windows.Version.Build,
		})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no image of it says its architecture and edition", errWIM)
	}
	return out, nil
}

// archName names PROCESSOR_ARCHITECTURE_*.
func archName(n int) string {
	switch n {
	case 0:
		return "i686"
	case 9:
		return "x86_64"
	case 5:
		return "arm"
	case 12:
		return "arm64"
	}
	return fmt.Sprintf("processor architecture %d", n)
}
