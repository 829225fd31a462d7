package control

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
)

// deploymentFile, in the data directory, holds the id of the mesh that the
// directory belongs to, from the moment it is known. It is what tells a node
// after a restart that it met another mesh, and an owner that its index was
// lost: a new id must never be made up for old data.
const deploymentFile = "deployment"

// loadDeployment reads the file; "" where there is none.
func loadDeployment(f vfs.FS, dir string) (id string, err error) {
	path := f.PathJoin(dir, deploymentFile)
	file, err := f.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer closeInto(&err, file)
	b, err := io.ReadAll(io.LimitReader(file, 64))
	if err != nil {
		return "", err
	}
	if len(b) != 37 || b[36] != '\n' || uuid.Validate(string(b[:36])) != nil {
		return "", fmt.Errorf("%s: isn't the id of a mesh", path)
	}
	return string(b[:36]), nil
}

// saveDeployment writes the file so that it is there whole, or not at all.
func saveDeployment(f vfs.FS, dir, id string) (err error) {
	path := f.PathJoin(dir, deploymentFile)
	next := path + ".new"
	file, err := f.Create(next, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, id+"\n")
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
