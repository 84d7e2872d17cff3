// Package e2e owns clusters of the real program: daemons in the namespaces of a
// testnet.Lab, founded and operated by the same commands that an operator types.
// Its tests are the acceptance tests of the product; the demonstration uses it
// as well, so nothing here needs package testing.
//
// The tests need root and RAFTVIP_NETNS=1. They build the program themselves:
// RAFTVIP_E2E_RACE=1 builds it with the race detector, RAFTVIP_BINARY names one
// that is built already.
package e2e
