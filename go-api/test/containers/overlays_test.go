package containers

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/quern-data/quern/go-api/test/harness"
)

// The credentials that the overlay gives MinIO by itself.
const minioUser, minioSecret = "quern", "quern-on-one-machine"

// checkOverlays sees that compose takes each overlay, and Prometheus what is there for it.
func checkOverlays(t *testing.T, d *docker) {
	for _, overlay := range []string{"bucket", "monitoring"} {
		config := d.run(t, ".ci/docker-compose", "-f", "docker-compose.yml", "-f", "deploy/compose/"+overlay+".yml", "--profile", "minio", "config")
		for line := range strings.Lines(config) {
			// Mounts must be of files that are there.
			source, _, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "- "), ":/etc/")
			if _, err := os.Stat(source); ok && strings.HasPrefix(source, "/") && err != nil {
				t.Errorf("%s: %v", overlay, err)
			}
		}
	}
	promtool := d.run(t, ".ci/debian", "promtool", "bin/promtool", "prometheus")
	dir := t.TempDir()
	for _, path := range []string{"compose/prometheus.yml", "monitoring/alerts.yaml"} {
		text, err := os.ReadFile(filepath.Join(d.root, "deploy", path))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(d.run(t, "env", promtool, "check", "config", filepath.Join(dir, "prometheus.yml")))
	for _, path := range []string{"datasources.yml", "dashboards.yml"} {
		if _, err := os.Stat(filepath.Join(d.root, "deploy/compose/grafana", path)); err != nil {
			t.Error(err)
		}
	}
}

// serveBucket puts the overlay of buckets over the fleet, with a MinIO, and asks for what is put there.
func (f *fleet) serveBucket(t *testing.T) {
	image := f.name("minio")
	id := f.run(t, "docker", "create", f.base, "/minio")
	f.run(t, "docker", "cp", f.run(t, ".ci/minio"), id+":/minio")
	f.run(t, "docker", "commit", "--change", `ENTRYPOINT ["/minio"]`, id, image)
	f.run(t, "docker", "rm", id)
	before := f.env
	defer func() { f.env = before }()
	f.env = append(f.env, "QUERN_MINIO_IMAGE="+image, "QUERN_MINIO_PORT=127.0.0.1:0", "QUERN_BUCKET=s3://harvest/grain", "QUERN_BUCKET_POLL=1s")
	overlaid := []string{"-f", "docker-compose.yml", "-f", "deploy/compose/bucket.yml", "--profile", "minio"}
	f.run(t, ".ci/docker-compose", append(overlaid, "up", "--detach", "--no-build", "minio", "engine")...)
	client, err := minio.New(f.container(t, "minio").address(t)+":9000", &minio.Options{Creds: credentials.NewStaticV4(minioUser, minioSecret, "")})
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, startLimit, "MinIO has a bucket", func() bool {
		return client.MakeBucket(t.Context(), "harvest", minio.MakeBucketOptions{}) == nil
	})
	const text = "kind,weight\nrye,7\noats,5\n"
	if _, err := client.PutObject(t.Context(), "harvest", "grain/loads.csv", strings.NewReader(text), int64(len(text)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	var answer []byte
	harness.Eventually(t, startLimit, "the bucket's table is answered", func() bool {
		answer, err = f.proxy.Query(t.Context(), "SELECT sum(weight) AS weight FROM loads", "json-array")
		return err == nil
	})
	var rows []struct{ Weight int }
	if err := json.Unmarshal(answer, &rows); err != nil || len(rows) != 1 || rows[0].Weight != 12 {
		t.Errorf("got %s", answer)
	}
	f.run(t, ".ci/docker-compose", append(overlaid, "rm", "--stop", "--force", "minio")...)
}
