// Package keepalived reads the configuration language of keepalived: a line
// based language of keywords, words and blocks. It turns files into a tree in
// which every word knows its file and line. It knows no keyword beyond the
// ones that the language itself has (include, definitions, @host lines);
// meaning is given by package config.
package keepalived
