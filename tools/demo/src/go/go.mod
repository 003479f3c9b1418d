// Keeps the sample out of the modules around it; build.bat calls compile and link itself.
module demo

go 1.25
