#!/usr/bin/env node
require('@ballast/shared/start').startProgram(__filename);
