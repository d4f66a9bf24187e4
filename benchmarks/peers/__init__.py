"""Other packages' functions under the names of the conformance suite, one module each; nothing is computed here."""
