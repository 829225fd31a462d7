package control

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
)

// deploymentFile, in the data directory, holds the id of the mesh that the
// directory belongs to, from the moment it is known. It is what tells a node
// after a restart that it met another mesh, or that its part of the index was
// lost: a new id must never be made up for old data.
const deploymentFile = "deployment"

// loadDeployment reads the file; "" where there is none.
func loadDeployment(f vfs.FS, dir string) (id string, err error) {
	path := f.PathJoin(dir, deploymentFile)
	b, err := loadFile(f, path)
	if err != nil || b == nil {
		return "", err
	}
	if len(b) != 37 || b[36] != '\n' || uuid.Validate(string(b[:36])) != nil {
		return "", fmt.Errorf("%s: isn't the id of a mesh", path)
	}
	return string(b[:36]), nil
}

// saveDeployment writes the file so that it is there whole, or not at all.
func saveDeployment(f vfs.FS, dir, id string) error {
	return saveFile(f, dir, deploymentFile, id+"\n")
}

// raftIDFile holds the node's id in all raft groups, 16 hexadecimal digits. It
// is random, made once, and goes with the log: a node that lost that must not
// come back under it.
const raftIDFile = "raft-id"

// loadRaftID reads the file; 0 where there is none.
func loadRaftID(f vfs.FS, dir string) (id uint64, err error) {
	path := f.PathJoin(dir, raftIDFile)
	b, err := loadFile(f, path)
	if err != nil || b == nil {
		return 0, err
	}
	if len(b) != 17 || b[16] != '\n' {
		return 0, fmt.Errorf("%s: isn't a raft id", path)
	}
	if id, err = strconv.ParseUint(string(b[:16]), 16, 64); err != nil || id == 0 {
		return 0, fmt.Errorf("%s: isn't a raft id", path)
	}
	return id, nil
}

func saveRaftID(f vfs.FS, dir string, id uint64) error {
	return saveFile(f, dir, raftIDFile, fmt.Sprintf("%016x\n", id))
}

// loadFile reads a small file, nil where there is none.
func loadFile(f vfs.FS, path string) (b []byte, err error) {
	file, err := f.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closeInto(&err, file)
	if b, err = io.ReadAll(io.LimitReader(file, 64)); b == nil {
		b = []byte{}
	}
	return b, err
}

// saveFile writes a file so that it is there whole, or not at all.
func saveFile(f vfs.FS, dir, name, content string) (err error) {
	path := f.PathJoin(dir, name)
	next := path + ".new"
	file, err := f.Create(next, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, content)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err := f.Rename(next, path); err != nil {
		return err
	}
	d, err := f.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
