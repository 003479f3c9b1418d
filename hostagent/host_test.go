package hostagent

import (
	"testing"

	"winvm/hostagent/image"
)

// A suspend that asks for nothing keeps what the image remembers.
func TestSuspendOptions(t *testing.T) {
	a := &image.Warm{Store: "/store", Inputs: []string{"a"}}
	b := &image.Warm{Store: "/store", Inputs: []string{"b"}}
	m := image.Meta{ControllerMiB: 600, Warm: a}
	for _, c := range []struct {
		o       SuspendOptions
		changes bool
		want    image.Meta
	}{
		{SuspendOptions{}, false, m},
		{SuspendOptions{Warm: &image.Warm{Store: "/store", Inputs: []string{"a"}}, ControllerMiB: 600}, false, m},
		{SuspendOptions{Warm: b}, true, image.Meta{ControllerMiB: 600, Warm: b}},
		{SuspendOptions{Cold: true}, true, image.Meta{ControllerMiB: 600}},
		{SuspendOptions{ControllerMiB: 512}, true, image.Meta{ControllerMiB: 512, Warm: a}},
	} {
		if c.o.changes(m) != c.changes {
			t.Errorf("%+v: changes is %v", c.o, !c.changes)
		}
		got := m
		c.o.change(&got)
		if got.ControllerMemory() != c.want.ControllerMemory() || (got.Warm == nil) != (c.want.Warm == nil) || got.Warm != nil && got.Warm.Inputs[0] != c.want.Warm.Inputs[0] {
			t.Errorf("%+v made %+v", c.o, got)
		}
	}
	if (&SuspendOptions{ControllerMiB: image.DefaultControllerMiB}).changes(image.Meta{}) {
		t.Error("the default is a change")
	}
}
