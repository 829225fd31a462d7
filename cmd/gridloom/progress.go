package main

import (
	"io"
	"os"

	"github.com/cheggaaa/pb/v3"
	"golang.org/x/term"
)

// meter shows how much has been moved, while it moves, to someone who watches:
// on standard error, where that is a terminal, and not with --json. Elsewhere
// it is nil, and its methods do nothing.
type meter struct {
	app *app
	bar *pb.ProgressBar
}

// newMeter starts a meter; total < 0 is not known. Its stop must be called.
// There is one at a time.
func (a *app) newMeter(total int64) *meter {
	if a.json || !isTerminal(a.stderr) {
		return nil
	}
	template := pb.ProgressBarTemplate(`{{counters . }} {{bar . }} {{percent . }} {{speed . }} {{rtime . "ETA %s"}}`)
	if total < 0 {
		template = `{{counters . }} {{speed . }} {{etime . }}`
	}
	bar := template.New(0).SetTotal(max(total, 0)).SetWriter(a.stderr).Set(pb.Bytes, true).Set(pb.CleanOnFinish, true)
	a.meter = &meter{app: a, bar: bar.Start()}
	return a.meter
}

// isTerminal reports whether someone reads w as it is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// clearMeter makes room for text on the terminal that a meter is on; the meter
// comes back by itself.
func (a *app) clearMeter() {
	if a.meter != nil {
		_, _ = io.WriteString(a.stderr, "\r\x1b[K")
	}
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

// stop removes the meter and joins its goroutine.
func (m *meter) stop() {
	if m != nil {
		m.app.meter = nil
		m.bar.Finish()
	}
}
