package e2e_test

import "testing"

// After all that the other tests have done to builds, the shared image is as it was
// written, and works. This file's name puts it last.
func TestImageIsUnharmed(t *testing.T) {
	e := newEnv(t)
	r := e.start("image", "verify", imageName)
	r.wait()
	r.wants(0)
	e.works()
}
