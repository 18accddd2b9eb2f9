"""Files by protocols that do one plain thing at a time, where no porter runs: SFTP and Chirp."""
