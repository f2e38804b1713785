"""Memory as pure logic: no process, no file, no clock of its own."""
