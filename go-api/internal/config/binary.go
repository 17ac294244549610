package config

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const engineName = "quern-engine"

// FindEngine returns the path of the local engine's binary: the one asked for, else the one beside this program, else
// the one on PATH.
func (c *Config) FindEngine() (string, error) {
	if c.EngineBin != "" {
		path, err := exec.LookPath(c.EngineBin)
		if err != nil {
			return "", fmt.Errorf("--engine-bin %s can't be run: %w", c.EngineBin, err)
		}
		return path, nil
	}
	if self, err := os.Executable(); err == nil {
		if resolved, err := filepath.EvalSymlinks(self); err == nil {
			self = resolved
		}
		if path, err := exec.LookPath(filepath.Join(filepath.Dir(self), engineName)); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath(engineName); err == nil {
		return path, nil
	}
	return "", errors.New("the engine is not found: put " + engineName + " beside this program or on PATH, or name it with --engine-bin")
}
