#include "graft/cli/app.h"

int main(int argc, char** argv) { return graft::run_graft(argc, argv); }
