package certs

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long Watch lets what has begun to change go on changing.
const settle = 50 * time.Millisecond

// Watch calls changed when something happens in a folder of the files, and every
// so often besides, until ctx ends: what is behind a symlink changes unseen, as
// do network file systems, and there may be no more watches to be had. changed
// has to find out by itself whether there is anything new.
func Watch(ctx context.Context, files []string, every time.Duration, changed func()) {
	var events chan fsnotify.Event
	var failures chan error
	if w := watchFolders(files); w != nil {
		defer w.Close()
		events, failures = w.Events, w.Errors
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var settled <-chan time.Time // nil while nothing happens
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case _, ok := <-events:
			if !ok {
				events = nil
			} else if settled == nil {
				settled = time.After(settle)
			}
			continue
		case _, ok := <-failures: // something may have been missed: the tick finds it
			if !ok {
				failures = nil
			}
			continue
		case <-settled:
			settled = nil
		}
		changed()
	}
}

// watchFolders watches the folders of files; nil where there are none, or where
// that can't be done.
func watchFolders(files []string) *fsnotify.Watcher {
	var folders []string
	for _, name := range files {
		if dir := filepath.Dir(name); !slices.Contains(folders, dir) {
			folders = append(folders, dir)
		}
	}
	if len(folders) == 0 {
		return nil
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil
	}
	for _, dir := range folders {
		_ = w.Add(dir) // or the tick finds what changes there
	}
	return w
}
