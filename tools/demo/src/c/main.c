/*
 * crctool: generates the table that the Go program is compiled with, and sums files itself, so
 * that the two programs can be held against each other.
 *
 *   crctool -go PACKAGE FILE   write the table to FILE as Go source
 *   crctool FILE               print FILE's CRC-32
 */
#include <stdio.h>
#include <string.h>

#include "crc.h"
#include "emit.h"

static int generate(const char *package, const char *path)
{
	FILE *f = fopen(path, "wb");
	int bad;

	if (!f) {
		perror(path);
		return 1;
	}
	bad = emit_go(f, package);
	if (fclose(f) != 0 || bad) {
		fprintf(stderr, "%s: can't write\n", path);
		return 1;
	}
	return 0;
}

static int sum(const char *path)
{
	static unsigned char buf[65536];
	uint32_t crc = 0;
	size_t n;
	FILE *f = fopen(path, "rb");

	if (!f) {
		perror(path);
		return 1;
	}
	while ((n = fread(buf, 1, sizeof buf, f)) > 0)
		crc = crc_update(crc, buf, n);
	if (ferror(f)) {
		perror(path);
		fclose(f);
		return 1;
	}
	fclose(f);
	printf("%08x\n", (unsigned)crc);
	return 0;
}

int main(int argc, char **argv)
{
	crc_init();
	if (crc_update(0, "123456789", 9) != 0xcbf43926u) {
		fprintf(stderr, "crctool: the CRC of the check string is wrong\n");
		return 2;
	}
	if (argc == 4 && strcmp(argv[1], "-go") == 0)
		return generate(argv[2], argv[3]);
	if (argc == 2)
		return sum(argv[1]);
	fprintf(stderr, "usage: crctool -go PACKAGE FILE | crctool FILE\n");
	return 2;
}
