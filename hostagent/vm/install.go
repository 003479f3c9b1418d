package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// PressKey presses a key on the guest's keyboard; QEMU's names, as "ret" or "spc".
func (v *VM) PressKey(ctx context.Context, key string) error {
	type value struct {
		Type string `json:"type"`
		Data string `json:"data"`
	}
	err := v.mon.Run(ctx, "send-key", map[string]any{"keys": []value{{"qcode", key}}}, nil)
	if err != nil {
		return fmt.Errorf("press a key in VM %s: %w", v.name, v.ended(err))
	}
	return nil
}

// PowerButton presses the power button.
func (v *VM) PowerButton(ctx context.Context) error {
	if err := v.mon.Run(ctx, "system_powerdown", nil, nil); err != nil {
		return fmt.Errorf("power button of VM %s: %w", v.name, v.ended(err))
	}
	return nil
}

// Moved is how many bytes the guest has read from and written to a drive.
type Moved struct{ Read, Written int64 }

// Moved returns the traffic of all drives, by the drives' IDs.
func (v *VM) Moved(ctx context.Context) (map[string]Moved, error) {
	var stats []struct {
		Device string `json:"qdev"`
		Stats  struct {
			Read    int64 `json:"rd_bytes"`
			Written int64 `json:"wr_bytes"`
		} `json:"stats"`
	}
	if err := v.mon.Run(ctx, "query-blockstats", nil, &stats); err != nil {
		return nil, fmt.Errorf("drives of VM %s: %w", v.name, v.ended(err))
	}
	out := map[string]Moved{}
	for _, s := range stats {
		id := s.Device
		if i := strings.LastIndex(id, "disk-"); i >= 0 {
			id, _, _ = strings.Cut(id[i+len("disk-"):], "/")
			out[id] = Moved{s.Stats.Read, s.Stats.Written}
		}
	}
	return out, nil
}

// The text screen of a PC: 25 lines of 80 cells, a character and its colours each.
const (
	textScreen     = 0xb8000
	textScreenSize = 80 * 25 * 2
)

// ScreenText is what the screen shows while it is in text mode, as a BIOS and its boot
// loaders have it: ASCII, line by line. In another mode it is nothing that means
// something. dir is an absolute one for a file that is removed again.
func (v *VM) ScreenText(ctx context.Context, dir string) (string, error) {
	file := filepath.Join(dir, ".screen-"+v.name)
	defer func() { _ = os.Remove(file) }()
	err := v.mon.Run(ctx, "pmemsave", map[string]any{"val": textScreen, "size": textScreenSize, "filename": file}, nil)
	if err != nil {
		return "", fmt.Errorf("screen of VM %s: %w", v.name, v.ended(err))
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return textOf(b), nil
}

func textOf(cells []byte) string {
	var out strings.Builder
	for i := 0; i+1 < len(cells) && i < textScreenSize; i += 2 {
		if c := cells[i]; c >= ' ' && c <= '~' {
			out.WriteByte(c)
		} else {
			out.WriteByte(' ')
		}
		if i%160 == 158 {
			out.WriteByte('\n')
		}
	}
	return out.String()
}
