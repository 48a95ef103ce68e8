package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func must(err error) {
	if err != nil {
		fmt.Println("REFUSED", err)
		os.Exit(1)
	}
}

func main() { // VKEY PROOF ENVELOPE
	proof, err := os.ReadFile(os.Args[2])
	must(err)
	envelope, err := os.ReadFile(os.Args[3])
	must(err)
	head, text, _ := strings.Cut(string(proof), "\n\n")
	verifier, err := note.NewVerifier(os.Args[1])
	must(err)
	opened, err := note.Open([]byte(text), note.VerifierList(verifier))
	must(err)
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err)
	var root tlog.Hash
	raw, err := base64.StdEncoding.DecodeString(lines[2])
	must(err)
	copy(root[:], raw)
	rows := strings.Split(head, "\n")
	index, err := strconv.ParseInt(strings.TrimPrefix(rows[1], "index "), 10, 64)
	must(err)
	var path tlog.RecordProof
	for _, row := range rows[2:] {
		var hash tlog.Hash
		raw, err := base64.StdEncoding.DecodeString(row)
		must(err)
		copy(hash[:], raw)
		path = append(path, hash)
	}
	must(tlog.CheckRecord(path, size, root, index, tlog.RecordHash(envelope)))
	fmt.Printf("entry %d is in the log %s of %d entries\n", index, lines[0], size)
}
