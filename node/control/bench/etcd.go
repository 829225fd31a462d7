package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/gridloom/gridloom/internal/bench"
)

// serveEtcd runs a member of an etcd of three, by the defaults of etcd but for
// the quota, which a long benchmark would reach.
func serveEtcd(c *memberConfig) (*bench.Served, error) {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = c.Self.Name, filepath.Join(c.Dir, "data")
	var cluster []string
	for _, e := range c.All {
		cluster = append(cluster, e.Name+"=http://"+e.Peer)
	}
	cfg.InitialCluster, cfg.InitialClusterToken = strings.Join(cluster, ","), "gridloom-bench"
	clientURL, peerURL := url.URL{Scheme: "http", Host: c.Self.Client}, url.URL{Scheme: "http", Host: c.Self.Peer}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{clientURL}, []url.URL{clientURL}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peerURL}, []url.URL{peerURL}
	cfg.LogLevel, cfg.LogOutputs = "error", []string{"stderr"}
	cfg.QuotaBackendBytes = 8 << 30
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	go func() {
		select {
		case err := <-e.Err():
			failed <- err
		case <-e.Server.StopNotify():
			failed <- errors.New("the server stopped")
		}
	}()
	return &bench.Served{Ready: e.Server.ReadyNotify(), Failed: failed, Close: func() error {
		e.Server.HardStop() // the others stop too: there is nobody to hand leadership to
		e.Close()
		return nil
	}}, nil
}

// etcdClient is etcd's own client of one member.
type etcdClient struct {
	*clientv3.Client
	addr string
}

func dialEtcd(addr, _ string) (client, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + addr}, Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	return &etcdClient{c, addr}, nil
}

func (c *etcdClient) prepare(context.Context) error { return nil }

func (c *etcdClient) put(ctx context.Context, key string, value []byte) error {
	_, err := c.Put(ctx, key, string(value))
	return err
}

func (c *etcdClient) get(ctx context.Context, key string) ([]byte, error) {
	resp, err := c.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	if len(resp.Kvs) != 1 {
		return nil, fmt.Errorf("%q has %d values", key, len(resp.Kvs))
	}
	return resp.Kvs[0].Value, nil
}

func (c *etcdClient) stat(ctx context.Context, key string) error {
	resp, err := c.Get(ctx, key, clientv3.WithKeysOnly())
	if err == nil && len(resp.Kvs) != 1 {
		err = fmt.Errorf("%q has %d values", key, len(resp.Kvs))
	}
	return err
}

func (c *etcdClient) leads(ctx context.Context) (bool, error) {
	resp, err := c.Status(ctx, c.addr)
	return err == nil && resp.Leader == resp.Header.MemberId, err
}

func (c *etcdClient) close() error { return c.Close() }
