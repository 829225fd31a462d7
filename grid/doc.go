// Package grid is a peer-to-peer RPC backplane: exactly one WebSocket between
// every two nodes, over which both ends issue calls and both ends handle them.
package grid
