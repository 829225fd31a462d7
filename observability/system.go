package observability

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"
)

// system is the source that reads this machine, by gopsutil. What it costs on
// Linux: six files of /proc, some 0.2 ms.
type system struct {
	process process.Process
}

func newSystem() *system {
	return &system{process: process.Process{Pid: int32(os.Getpid())}}
}

func (s *system) read(ctx context.Context, devices []string) *reading {
	r := &reading{at: time.Now(), cores: int32(runtime.NumCPU())}
	r.readCPU(ctx)
	r.readLoad(ctx)
	r.readMemory(ctx, &s.process)
	r.readNetworks(ctx)
	r.readDisks(ctx, devices)
	return r
}

func (r *reading) failed(what string, err error) {
	r.problems = append(r.problems, fmt.Errorf("%s: %w", what, err))
}

func (r *reading) readCPU(ctx context.Context) {
	times, err := cpu.TimesWithContext(ctx, true)
	if err == nil && len(times) == 0 {
		err = errors.New("no times")
	}
	if err != nil {
		r.failed("cpu", err)
		return
	}
	r.cpu = make(map[int32]cpuTimes, len(times))
	for i, t := range times {
		// On Linux guest time is in user and nice already: proc(5).
		r.cpu[coreNumber(t.CPU, i)] = cpuTimes{
			user:   t.User + t.Nice,
			system: t.System + t.Irq + t.Softirq,
			idle:   t.Idle,
			iowait: t.Iowait,
			steal:  t.Steal,
		}
	}
}

// coreNumber is the number in a core's name, "cpu3", or else its place in the
// list. Cores may be offline, and then the two differ.
func coreNumber(name string, place int) int32 {
	if n, err := strconv.ParseInt(strings.TrimLeft(name, "cpuCPU"), 10, 32); err == nil && n >= 0 {
		return int32(n)
	}
	return int32(place)
}

func (r *reading) readLoad(ctx context.Context) {
	if runtime.GOOS == "windows" {
		return // gopsutil would start a goroutine that never ends, to make one up
	}
	avg, err := load.AvgWithContext(ctx)
	if err != nil {
		r.failed("load", err)
		return
	}
	r.load = &loads{one: avg.Load1, five: avg.Load5, fifteen: avg.Load15}
}

func (r *reading) readMemory(ctx context.Context, self *process.Process) {
	v, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		r.failed("memory", err)
		return
	}
	m := &memoryBytes{
		total:     float64(v.Total),
		used:      float64(v.Used),
		free:      float64(v.Free),
		available: float64(v.Available),
		buffers:   float64(v.Buffers),
		cache:     float64(v.Cached),
	}
	r.memory = m
	if runtime.GOOS == "linux" { // it was in the same file
		m.swapTotal, m.swapUsed = float64(v.SwapTotal), float64(v.SwapTotal-min(v.SwapTotal, v.SwapFree))
	} else if swap, err := mem.SwapMemoryWithContext(ctx); err != nil {
		r.failed("swap", err)
	} else {
		m.swapTotal, m.swapUsed = float64(swap.Total), float64(swap.Used)
	}
	if p, err := self.MemoryInfoWithContext(ctx); err != nil {
		r.failed("process memory", err)
	} else {
		m.resident = float64(p.RSS)
	}
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	m.heap = float64(heap[0].Value.Uint64())
}

func (r *reading) readNetworks(ctx context.Context) {
	interfaces, err := net.IOCountersWithContext(ctx, true)
	if err != nil {
		r.failed("network", err)
		return
	}
	r.networks = make(map[string]networkCounters, len(interfaces))
	for _, i := range interfaces {
		r.networks[i.Name] = networkCounters{
			receivedBytes:   i.BytesRecv,
			sentBytes:       i.BytesSent,
			receivedPackets: i.PacketsRecv,
			sentPackets:     i.PacketsSent,
			errors:          i.Errin + i.Errout,
			drops:           i.Dropin + i.Dropout,
		}
	}
}

func (r *reading) readDisks(ctx context.Context, devices []string) {
	if len(devices) == 0 {
		return // no names would mean all
	}
	disks, err := disk.IOCountersWithContext(ctx, slices.Clone(devices)...) // it writes to the slice
	if err != nil {
		r.failed("disks", err)
		return
	}
	r.disks = make(map[string]diskCounters, len(disks))
	for name, d := range disks {
		r.disks[name] = diskCounters{
			reads:        d.ReadCount,
			writes:       d.WriteCount,
			readBytes:    d.ReadBytes,
			writtenBytes: d.WriteBytes,
			ioMillis:     d.ReadTime + d.WriteTime,
			busyMillis:   d.IoTime,
		}
	}
}

// device asks the kernel where it tells, and else looks for the mount that
// path is below.
func (s *system) device(ctx context.Context, path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return ""
	}
	if name := blockDevice(path); name != "" {
		return name
	}
	mounts, err := disk.PartitionsWithContext(ctx, false)
	if err != nil {
		return ""
	}
	return deviceOfMount(mounts, path)
}

// deviceOfMount returns the name under which gopsutil counts the device of
// the longest mount point above path.
func deviceOfMount(mounts []disk.PartitionStat, path string) string {
	device, longest := "", -1
	for _, m := range mounts {
		if len(m.Mountpoint) > longest && below(path, m.Mountpoint) {
			device, longest = m.Device, len(m.Mountpoint)
		}
	}
	if runtime.GOOS == "linux" {
		if !strings.HasPrefix(device, "/dev/") {
			return "" // a pool of ZFS, a network share
		}
		if real, err := filepath.EvalSymlinks(device); err == nil {
			device = real // /dev/mapper/x is dm-0
		}
		return filepath.Base(device)
	}
	return wholeDisk(strings.TrimPrefix(device, "/dev/"))
}

// below says whether path is dir or below it.
func below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// wholeDisk cuts a partition off: FreeBSD and macOS count whole disks (ada0
// for ada0p2, disk0 for disk0s1).
func wholeDisk(device string) string {
	name := strings.TrimRight(device, "0123456789")
	for name != "" {
		last := name[len(name)-1]
		if last != 'p' && last != 's' {
			break
		}
		disk := name[:len(name)-1]
		if disk == "" || disk[len(disk)-1] < '0' || disk[len(disk)-1] > '9' {
			break // the s is of the disk's name
		}
		device = disk
		name = strings.TrimRight(device, "0123456789")
	}
	return device
}
