package main

import (
	"fmt"
	"os"

	"github.com/cheggaaa/pb/v3"
	"golang.org/x/term"
)

// meter shows how much has been moved, while it moves, to someone who watches:
// on standard error, where that is a terminal, and not with --json. Elsewhere
// it is nil, and its methods do nothing.
type meter struct{ bar *pb.ProgressBar }

// newMeter starts a meter; total < 0 is not known. Its stop must be called.
func (a *app) newMeter(total int64) *meter {
	f, ok := a.stderr.(*os.File)
	if !ok || a.json || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	template := pb.ProgressBarTemplate(`{{counters . }} {{bar . }} {{percent . }} {{speed . }} {{rtime . "ETA %s"}}`)
	if total < 0 {
		template = `{{counters . }} {{speed . }} {{etime . }}`
	}
	bar := template.New(0).SetTotal(max(total, 0)).SetWriter(f).Set(pb.Bytes, true).Set(pb.CleanOnFinish, true)
	return &meter{bar.Start()}
}

// add counts bytes that were moved; negative ones were moved in vain.
func (m *meter) add(n int) {
	if m != nil {
		m.bar.Add(n)
	}
}

// expect adds to the total.
func (m *meter) expect(n int64) {
	if m != nil {
		m.bar.AddTotal(n)
	}
}

// clear makes room for a line of text on the same terminal; the bar comes back
// by itself.
func (a *app) clear(m *meter) {
	if m != nil {
		fmt.Fprint(a.stderr, "\r\x1b[K")
	}
}

// stop removes the meter and joins its goroutine.
func (m *meter) stop() {
	if m != nil {
		m.bar.Finish()
	}
}
