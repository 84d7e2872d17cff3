// Package config turns the syntax tree of a keepalived file into one node's
// typed configuration: defaults, validation, and a diagnostic with file and
// line for everything that is wrong or has no effect.
package config
