"""Sources of text: windows of characters or tokens, documents, token files; vocabularies."""
