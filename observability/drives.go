package observability

import (
	"context"
	"maps"
	"slices"
	"time"
)

// DriveSource is a drive of the node, for a Collector. Two that are equal (==)
// are the same drive, of which no more than one question is out at a time; a
// drive that was opened anew is another.
type DriveSource interface {
	// Now returns what is known without asking the drive: all that the node
	// fills in of a Drive but its usage. It must not block.
	Now() Drive
	// Usage asks the drive, and may take as long as that does: for ever on a
	// drive that hangs. What isn't known is zero.
	Usage() DriveUsage
}

// DriveUsage is how full a drive is.
type DriveUsage struct {
	TotalBytes, UsedBytes, FreeBytes    int64
	TotalInodes, UsedInodes, FreeInodes int64
}

const (
	// devicesEvery is for how many questions a drive's block device is taken
	// for known. It may be mounted anew.
	devicesEvery = 60
	// lastPatience is how long Run waits in the end for drives that were asked.
	lastPatience = time.Second
)

// driveWatch is what a drive has answered, and whether it was asked again.
type driveWatch struct {
	last  driveAnswer
	asked int              // how often
	out   chan driveAnswer // has a buffer; nil: no question is out
}

type driveAnswer struct {
	usage  DriveUsage
	device string
}

// watchDrives publishes the drives as often as Run samples the host, in a
// goroutine of its own, and asks each for its usage in another: a drive that
// hangs must stop neither the clock for the rest, nor what is known of it
// without asking.
func (c *Collector) watchDrives(ctx context.Context) {
	watches := make(map[DriveSource]*driveWatch)
	defer func() {
		await(context.WithoutCancel(ctx), slices.Collect(maps.Values(watches)), lastPatience)
	}()
	for {
		sources := c.o.Drives()
		c.askDrives(ctx, watches, sources)
		drives := make([]Drive, len(sources))
		for i, source := range sources {
			drives[i] = source.Now()
			drives[i].answered(watches[source].last)
		}
		c.mu.Lock()
		c.drives = drives
		c.publishLocked()
		c.mu.Unlock()
		if !c.wait(ctx) {
			return
		}
	}
}

// askDrives asks the drives that have answered before, and gives them a moment
// to do so again: what they say later is for the next sample.
func (c *Collector) askDrives(ctx context.Context, watches map[DriveSource]*driveWatch, sources []DriveSource) {
	for _, w := range watches {
		w.collect()
	}
	maps.DeleteFunc(watches, func(source DriveSource, w *driveWatch) bool {
		return w.out == nil && !slices.Contains(sources, source)
	})
	var asked []*driveWatch
	for _, source := range sources {
		w := watches[source]
		if w == nil {
			w = new(driveWatch)
			watches[source] = w
		}
		if w.out == nil {
			w.ask(ctx, c.o.Host, source)
			asked = append(asked, w)
		}
	}
	await(ctx, asked, c.o.Sample/4)
}

// await takes in what drives answer within patience, or until ctx ends.
func await(ctx context.Context, watches []*driveWatch, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, w := range watches {
		if w.out == nil {
			continue
		}
		select {
		case a := <-w.out:
			w.last, w.out = a, nil
		case <-ctx.Done():
			w.collect() // it may have answered behind one that didn't
		}
	}
}

// ask starts a goroutine that ends when the drive has answered. Nobody has to
// be there to take the answer.
func (w *driveWatch) ask(ctx context.Context, host *Host, source DriveSource) {
	out, device, look := make(chan driveAnswer, 1), w.last.device, w.asked%devicesEvery == 0
	w.out = out
	w.asked++
	go func() {
		a := driveAnswer{usage: source.Usage(), device: device}
		if look {
			a.device, _ = host.watch(ctx, source.Now().Path) // it fails when ctx ends
		}
		out <- a
	}()
}

// collect takes the answer in, if there is one.
func (w *driveWatch) collect() {
	select {
	case a := <-w.out:
		w.last, w.out = a, nil
	default:
	}
}

func (d *Drive) answered(a driveAnswer) {
	d.Device = a.device
	d.TotalBytes, d.UsedBytes, d.FreeBytes = a.usage.TotalBytes, a.usage.UsedBytes, a.usage.FreeBytes
	d.TotalInodes, d.UsedInodes, d.FreeInodes = a.usage.TotalInodes, a.usage.UsedInodes, a.usage.FreeInodes
}
