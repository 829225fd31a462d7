package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gridloom/gridloom/node/certs"
)

// rereadEvery is how late a change of a file of secrets may be seen.
const rereadEvery = time.Second

// secretList is one or more secrets, from a setting or from a file, which is read
// again when it changes. What get returns stays as it is.
type secretList[T any] struct {
	what     string // one of them: "key"
	file     string // "" for those of a setting
	variable string // that names the line of an environment file
	read     reader
	parse    func(string) (T, error)

	current atomic.Pointer[[]T]

	// Of check alone, which one goroutine calls:
	text    string // what current was made of
	trouble certs.Trouble
}

// given makes a list of what is known already.
func given[T any](items ...T) *secretList[T] {
	l := &secretList[T]{}
	l.current.Store(&items)
	return l
}

// get is the list as it is now.
func (l *secretList[T]) get() []T { return *l.current.Load() }

// begin reads the list for the first time, the file if there is one, or else the
// texts of the setting.
func (l *secretList[T]) begin(texts []string) error {
	text := strings.Join(texts, ",")
	if l.file != "" {
		var err error
		if text, err = readSecret(l.file, l.variable, l.read); err != nil {
			return err
		}
	}
	return l.take(text)
}

// take makes the list of a text: all of it is fit, or nothing is changed.
func (l *secretList[T]) take(text string) error {
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
	where := ""
	if l.file != "" {
		where = l.file + ": "
	}
	if len(words) == 0 {
		return fmt.Errorf("%sholds no %s", where, l.what)
	}
	var items []T
	for _, word := range words {
		item, err := l.parse(word)
		if err != nil {
			return fmt.Errorf("%s%w", where, err)
		}
		items = append(items, item)
	}
	l.text = text
	l.current.Store(&items)
	return nil
}

// check reads the file again. What is no good leaves the list as it is, and is
// logged once.
func (l *secretList[T]) check(now time.Time, log *slog.Logger) {
	text, err := readSecret(l.file, l.variable, l.read)
	changed := err == nil && text != l.text
	if changed {
		err = l.take(text)
	}
	if l.trouble.Tell(err, now) {
		log.Error("the file can't be used; the "+l.what+" of before stays in use", "file", l.file, "error", err)
	}
	if changed && err == nil {
		log.Info("took over what has changed in the file", "file", l.file, l.what+"s", len(l.get()))
	}
}

// rereadable is a list whose file is looked at.
type rereadable interface {
	check(now time.Time, log *slog.Logger)
}

// reread keeps lists up to date until ctx ends.
func reread(ctx context.Context, log *slog.Logger, files []string, lists []rereadable) {
	certs.Watch(ctx, files, rereadEvery, func() {
		for _, l := range lists {
			l.check(time.Now(), log)
		}
	})
}
