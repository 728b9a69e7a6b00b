'use strict';
// Every script here reads one JSON object from standard input and writes one to standard output.

const { readFileSync } = require('node:fs');

const request = JSON.parse(readFileSync(0, 'utf8'));

exports.request = request;
exports.answer = (value) => process.stdout.write(JSON.stringify(value));
