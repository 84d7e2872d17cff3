// Package imports holds no code: its test keeps the import rules of the design,
// each with its reason.
package imports
